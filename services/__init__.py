"""What every process shares: settings, wire protocol, queue, journal, registry, catalogue, the `chatserver` command.

Nothing here may import `workers`, `webapp` or `pipelines`, and nothing here may load torch. Importing a module opens
no socket, file or thread: objects are made in a `__main__` or a command and passed in.
"""
