"""Terms that training descends: functions of tensors, without weights and without models."""
