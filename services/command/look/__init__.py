"""Commands that look at an installation: `chatserver status`, `models`, `dead` and `doctor`."""
