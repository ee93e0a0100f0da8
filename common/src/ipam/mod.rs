//! Which address an attachment gets, and how it is given back.
