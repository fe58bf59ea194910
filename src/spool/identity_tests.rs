//! What is remembered of people: bounded, the longest unused forgotten first, denials of consent last.

use std::collections::HashSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::model_tests::{options, record, reopen};
use super::*;

const MAX: u64 = 10;

fn identify(id: u32) -> Append {
    let traits = Bytes::from(format!(r#"{{"n":{}}}"#, fastrand::u64(..)));
    Append { identities: vec![(format!("u:{id}"), traits)], ..Append::default() }
}

fn says(id: u32, granted: bool) -> Append {
    let person = PersonKey(u64::from(id));
    let said = Consent { person, category: "marketing".into(), granted, item: None };
    Append { consents: vec![said], ..Append::default() }
}

async fn denied(spool: &Spool, id: u32) -> bool {
    let (entries, asked) = ([entry(1, id)], ["marketing".to_owned()]);
    let apart = spool.apart(LaneId(1), &entries, &asked).await.unwrap();
    apart == [(Seq(1), End::Withheld)]
}

/// A record of this person, and of somebody else of whom nothing is known.
fn entry(seq: u64, id: u32) -> Entry {
    let person = PersonKeys::new([PersonKey(u64::MAX), PersonKey(u64::from(id))]);
    let (record_type, committed_at) = ("t".into(), crate::clock::UnixMillis(0));
    Entry {
        seq: Seq(seq),
        record_type,
        record: Bytes::new(),
        person,
        first_seen: None,
        event: None,
        committed_at,
    }
}

async fn known(spool: &Spool, id: u32) -> bool {
    spool.identities(vec![format!("u:{id}")]).await.unwrap()[0].is_some()
}

/// The keys of all identities, each of which has one age.
fn stored(spool: &Spool) -> HashSet<String> {
    let store = &spool.shared.store;
    let aged: Vec<(Vec<u8>, String)> = store.oldest().collect::<Result<_, _>>().unwrap();
    for (age, key) in &aged {
        let identity = store.identity(key).unwrap().unwrap();
        assert_eq!(&identity.age(key), age);
    }
    assert_eq!(store.identities.tree.len(), aged.len());
    assert_eq!(store.remembered().unwrap().count, aged.len() as u64);
    aged.into_iter().map(|(_, key)| key).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Identify(u32),
    Use(u32),
    Says(u32, bool),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u32..30).prop_map(Step::Identify),
        4 => (0_u32..8, any::<bool>()).prop_map(|(id, granted)| Step::Says(id, granted)),
        1 => Just(Step::Reopen),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let with_uses = prop_oneof![2 => step(), 1 => (0_u32..30).prop_map(Step::Use)];
    prop_oneof![
        proptest::collection::vec(step(), 1..80),
        proptest::collection::vec(with_uses, 1..80),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Never more than the bound; without uses, exactly what was changed last is there; no denial goes before an identity.
    #[test]
    fn the_longest_unused_are_forgotten(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = Options { identities_max: MAX, ..options(directory.path()) };
        runtime.block_on(async {
            let mut spool = reopen(&options);
            // Identities in the order of their last change, and those who deny.
            let (mut changed, mut denying, mut used) = (Vec::new(), HashSet::new(), false);
            for step in steps {
                match step {
                    Step::Identify(id) => {
                        spool.append(identify(id)).await.unwrap();
                        changed.retain(|known| *known != id);
                        changed.push(id);
                    }
                    Step::Use(id) => used |= known(&spool, id).await,
                    Step::Says(id, granted) => {
                        spool.append(says(id, granted)).await.unwrap();
                        if granted { denying.remove(&id); } else { denying.insert(id); }
                    }
                    Step::Reopen => {
                        spool.close().await;
                        drop(spool);
                        spool = reopen(&options);
                    }
                }
                let stored = stored(&spool);
                assert!(stored.len() as u64 <= MAX);
                for id in 0..8 {
                    assert_eq!(denied(&spool, id).await, denying.contains(&id), "{id}");
                }
                let room = usize::try_from(MAX).unwrap() - denying.len();
                changed.drain(..changed.len().saturating_sub(room));
                let is_there = |id: &u32| stored.contains(&format!("u:{id}"));
                // What was used may stay instead of what was changed before, but for the last.
                let certain = changed.iter().rev().take(if used { 1 } else { room });
                assert!(certain.clone().all(is_there), "{changed:?}: {stored:?}");
                assert!(used || stored.len() == changed.len() + denying.len());
            }
            spool.close().await;
        });
    }
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { identities_max: MAX, ..options(directory.path()) };
    let spool = reopen(&options);
    for id in 0..200 {
        spool.append(identify(id)).await.unwrap();
        assert!(known(&spool, 0).await, "in use, and forgotten after {id}");
    }
    let stored = stored(&spool);
    assert_eq!((stored.len() as u64, stored.contains("u:0")), (MAX, true));
    assert!(!known(&spool, 1).await && known(&spool, 199).await);
    spool.close().await;
}

#[tokio::test]
async fn denials_outlive_identities_and_are_bounded_too() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { identities_max: MAX, ..options(directory.path()) };
    let spool = reopen(&options);
    spool.append(says(1, false)).await.unwrap();
    for id in 0..40 {
        spool.append(identify(id)).await.unwrap();
    }
    assert!(denied(&spool, 1).await);
    for id in 2..=11 {
        spool.append(says(id, false)).await.unwrap();
    }
    assert!(!denied(&spool, 1).await && denied(&spool, 2).await && denied(&spool, 11).await);
    assert_eq!(stored(&spool).len() as u64, MAX);
    spool.close().await;
}

/// A repeat says nothing: the answer to the event was lost, and the person has said something else since.
#[tokio::test]
async fn what_a_repeated_event_says_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let spool = reopen(&options(directory.path()));
    let lane = spool.lane("uk", 0).await.unwrap();
    let of = |id: &str, content: Content, granted: bool| {
        let mut append = says(7, granted);
        append.items = vec![Item { once: Some(Once::new(lane.0, id)), content }];
        append.consents[0].item = Some(0);
        append
    };
    let sent = |id: &str, granted| of(id, record(lane, "t", b"x").content, granted);
    let dropped = |id: &str, granted| of(id, Content::Nothing, granted);
    for (append, expected) in [
        (sent("a", true), false),
        (dropped("b", false), true),
        (sent("a", true), true),
        (sent("c", true), false),
        (dropped("b", false), false),
        (dropped("d", false), true),
    ] {
        spool.append(append.clone()).await.unwrap();
        assert_eq!(denied(&spool, 7).await, expected, "{append:?}");
    }
    assert_eq!(*spool.newest(lane).borrow(), 2);
    spool.close().await;
}

/// Goal: the records that are there are not sent, under whichever key they are found; later ones are.
#[tokio::test]
async fn an_erasure_covers_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let mut spool = reopen(&options);
    let lane = spool.lane("uk", 0).await.unwrap();
    let of = |count| Append { items: vec![record(lane, "t", b"x"); count], ..Append::default() };
    spool.append(of(3)).await.unwrap();
    spool.append(says(7, false)).await.unwrap();
    spool.append(identify(7)).await.unwrap();
    let entries = [entry(1, 7), entry(2, 8), entry(3, 7), entry(4, 7)];
    let asked = ["marketing".to_owned()];
    let withheld = [1, 3, 4].map(|seq| (Seq(seq), End::Withheld));
    assert_eq!(spool.apart(lane, &entries, &asked).await.unwrap(), withheld);
    assert_eq!(spool.apart(lane, &entries, &[]).await.unwrap(), []);
    let (forgets, erases) = (vec!["u:7".to_owned()], vec![PersonKey(7)]);
    spool.append(Append { forgets, erases, ..of(0) }).await.unwrap();
    spool.append(of(1)).await.unwrap();
    for _ in 0..2 {
        for categories in [&asked[..], &[]] {
            let expected = [1, 3].map(|seq| (Seq(seq), End::Erased));
            assert_eq!(spool.apart(lane, &entries, categories).await.unwrap(), expected);
        }
        assert_eq!(spool.erased(lane, &entries).await.unwrap(), [Seq(1), Seq(3)]);
        assert!(!known(&spool, 7).await && !denied(&spool, 8).await);
        spool.close().await;
        drop(spool);
        spool = reopen(&options);
    }
    assert_eq!(spool.all_identities("", 9).await.unwrap().len(), 1);
    spool.close().await;
}
