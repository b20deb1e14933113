"""Placeholder until its plots are here."""

RECORDS = {}
