//! Recording and playing cassettes: the recorder, the two players, and sandboxes on recordings.

mod cassettes;
mod player;
mod recorder;
mod relay;
mod sandbox;
