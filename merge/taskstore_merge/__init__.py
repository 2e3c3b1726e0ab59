"""TaskStore's merge driver for git: three versions of a log in, one out, history kept."""
