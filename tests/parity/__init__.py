"""Side by side with LeRobot 0.6.1 in its own interpreter: `make parity PEER_PYTHON=…`."""
