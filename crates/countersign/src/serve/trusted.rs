//! What there is to say of a Site's trust: its keys and their times, and what it has revoked.

use countersign_cluster::status::Condition;
use countersign_signature::TOLD_AHEAD;
use countersign_site::Site;
use jiff::Timestamp;

/// Whether every key for images is trusted, and goes on to be.
pub(crate) fn keys(site: &Site, now: Timestamp) -> Condition {
    let (mut over, mut soon, mut later, mut any) = (Vec::new(), Vec::new(), Vec::new(), false);
    for (name, key) in &site.trust.keys {
        any |= !site.trust.bundle_keys.contains(name);
        match (key.period.from, key.period.until) {
            (_, Some(until)) if until <= now => over.push(format!("`{name}` since {until}")),
            (Some(from), _) if now < from => later.push(format!("`{name}` from {from} on")),
            (_, Some(until)) if until.duration_since(now) <= TOLD_AHEAD => {
                soon.push(format!("`{name}` until {until}"));
            }
            _ => {}
        }
    }
    let say = |reason, what: &str, names: &[String]| (false, reason, format!("{what}: {}", names.join(", ")));
    let (holds, reason, message) = if !any {
        let message = "`spec.trust.keys` has none for images: what names the Site's keys is refused";
        (false, "NoKeys", message.to_owned())
    } else if !over.is_empty() {
        say("KeyExpired", "not trusted any more", &over)
    } else if !soon.is_empty() {
        say("KeyEndsSoon", "trusted for less than 30 days more", &soon)
    } else if !later.is_empty() {
        say("KeyNotYet", "not trusted yet", &later)
    } else {
        (true, "Trusted", "every key is trusted, for 30 days at least".to_owned())
    };
    Condition { kind: "KeysTrusted", holds, reason, message }
}

/// Whether nothing is revoked.
pub(crate) fn revoked(site: &Site) -> Condition {
    let count = site.revoked.len();
    let (holds, reason, message) = match count {
        0 => (true, "None", "no digest is revoked".to_owned()),
        1 => (false, "Revoked", "1 digest is revoked: what names it is refused".to_owned()),
        _ => (false, "Revoked", format!("{count} digests are revoked: what names one is refused")),
    };
    Condition { kind: "NothingRevoked", holds, reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_says_whom_it_trusts_and_for_how_long() {
        let site = |keys: &str, more: &str| {
            let text = format!(
                "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: {{ name: registry.local, \
                 endpoints: [{{ name: a, url: 'http://127.0.0.1:5000' }}] }}\n  trust: {{ keys: {{ {keys} }} }}\n{more}"
            );
            Site::parse(&text).unwrap()
        };
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        for (keys, reason) in [
            ("", "NoKeys"),
            ("a: { pem: x }", "Trusted"),
            ("a: { pem: x, trustedUntil: 2026-08-01 }", "Trusted"),
            ("a: { pem: x, trustedUntil: 2026-07-01 }", "KeyEndsSoon"),
            ("a: { pem: x, trustedUntil: 2026-06-01 }, b: { pem: z }", "KeyExpired"),
            ("a: { pem: x, trustedFrom: 2026-06-02 }", "KeyNotYet"),
        ] {
            let condition = super::keys(&site(keys, ""), now);
            assert_eq!((condition.reason, condition.holds), (reason, reason == "Trusted"), "{keys}");
        }
        let revoked = format!("  revoked: ['sha256:{}']\n", "a".repeat(64));
        let (none, one) = (super::revoked(&site("", "")), super::revoked(&site("", &revoked)));
        assert_eq!((none.holds, one.holds), (true, false));
    }
}
