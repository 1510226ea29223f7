"""What a study is: a grid of runs as data. Starts nothing."""
