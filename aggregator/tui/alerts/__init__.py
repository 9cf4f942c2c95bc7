"""Alerts: what needs a person, attacks and anomalies."""
