"""What ties a store to git: hooks, attributes, ignore patterns and the merge driver, installed and taken out again."""
