//! Documents that are not like upstream's.
