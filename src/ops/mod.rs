//! Threaded steps over whole activations.
