"""Prompt Herald: every new prompt version is announced once, to the right people."""
