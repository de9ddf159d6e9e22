"""What makes an epsilon true: plan, accounting, calibration, guarantee."""
