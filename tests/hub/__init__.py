"""A Hub on the loopback interface, and what publishing to it promises whatever fails."""
