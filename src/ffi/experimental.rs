//! mantle_experimental.h - what may still change.
//!
//! The conventions of mantle.h hold here too, except that a function may change or go with any version:
//! the soname does not move for it. What proves itself moves to mantle.h.
