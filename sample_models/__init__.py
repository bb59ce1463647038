"""Models to try an audit on, each with a fault that was planted and is known; see README.md."""
