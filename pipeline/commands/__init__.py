"""One small function for each command of `hushtune`: takes the parsed arguments, prints, returns the exit code."""
