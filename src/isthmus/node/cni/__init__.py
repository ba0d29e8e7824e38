"""The agent that lets pods of a node take part in ambient mode: packet rules, and a word to the proxy."""
