//! The host side: what drives targets.
