//! The pool of `examples/pool.rs`, on scripted VMMs.

use super::Place;

#[path = "../../../../examples/pool.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program")]
mod program;

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_the_same_time_each_get_their_own_answer() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(2));
    let messages = ["one", "two", "three", "four", "five"];
    let said = program::echo_all(&pool, &messages).await;
    let said: Vec<String> = said.into_iter().map(Result::unwrap).collect();
    assert_eq!(said, messages);
    pool.shutdown().await;
    place.stage.assert_empty();
}
