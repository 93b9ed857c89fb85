"""What a model may call: functions with a name, a description and limits. No Lagent, no torch."""
