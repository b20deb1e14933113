"""Numbers out of records: each result carries the check of what it rests on; no ink, no torch."""
