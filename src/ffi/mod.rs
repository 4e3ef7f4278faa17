//! The C ABI: handles, pointers, status numbers.
