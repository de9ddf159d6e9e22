"""Tests one private step of each engine with DP-Auditorium's hockey-stick tester: see ../README.md."""
