"""What a block must do, checked on any block."""
