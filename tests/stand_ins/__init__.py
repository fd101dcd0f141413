"""Programs that stand in for slow or heavy ones in tests and measurements."""
