//! The network, for targets that are reached through it.

/// Brings it up.
///
/// # Errors
/// Always, in this version: `arm` refuses targets that would need it.
pub fn bring_up() -> anyhow::Result<()> {
    anyhow::bail!("this version does not bring up the network")
}
