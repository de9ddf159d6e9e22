"""One private step of each engine under the hockey-stick tester of DP-Auditorium: see ../README.md."""
