"""The embedded mini survey; delete it and everything still runs against a real one."""
