"""One file a channel: versions in, a message out; an answer in, a verdict out. No I/O."""
