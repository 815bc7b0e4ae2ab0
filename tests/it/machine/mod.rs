//! Tests of what a machine accepts from a snapshot.

mod hostile_config;
