//! Which rust-libp2p this is.

/// The version that this was built from: Cargo.toml names it exactly.
pub fn libp2p_version() -> &'static str {
    include_str!("../Cargo.toml")
        .lines()
        .find(|line| line.starts_with("libp2p ="))
        .and_then(|line| line.split('"').nth(1))
        .map_or("", |version| version.trim_start_matches('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_a_version() {
        assert_eq!(
            libp2p_version().split('.').count(),
            3,
            "{}",
            libp2p_version()
        );
    }
}
