"""The code that all processes share: settings, protocol, queue, journal, registry, catalogue, `chatserver` command.

Nothing here may import `workers`, `webapp` or `pipelines`, and nothing here may load torch. Importing a module opens
no socket, file or thread: objects are made in a `__main__` or a command and passed in.
"""
