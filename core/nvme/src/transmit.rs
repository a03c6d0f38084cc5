//! transmit
