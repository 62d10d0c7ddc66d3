//! The command line of Sandtrace.
