"""MITRE ATT&CK Mobile as documents for Llamabda. Standard library only: it runs without the project installed."""
