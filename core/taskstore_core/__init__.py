"""What library, command line, daemon, hooks and merge driver share; it neither prints nor reads the environment.

Nothing is imported here: each command pays only for the modules it uses.
"""
