//! Weight types: block structures, scalar encode and decode, and the packed layout.
