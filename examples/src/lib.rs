//! Programs that show the workspace at work.
