//! What a machine takes of a snapshot.

mod hostile_config;
