//! What keeps Baton from moving services by itself, told as short stories: when it must not move one again so soon, too often,
//! while somebody works on it, or when half the world seems to fail. What an operator asks for is never held by that.

mod support;

mod rails {
    mod automatic;
    mod brake;
    mod candidates;
    mod failback;
    mod often;
    mod pauses;
    pub(crate) mod play;
    mod refusals;
    mod told;
}
