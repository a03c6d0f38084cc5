//! The two parts of an exchange with each other, and with whoever does not keep to it.

use braid_nvme::Status;
use braid_nvme::auth::{
    Answer, Exchange, Generator, Group, Hash, HostKey, Input, Message, Names, Offer, Proof, Reason,
    Secret, Step, Verdict,
};
use braid_nvme::connect::Nqn;

const HOST: &str = "DHHC-1:01:EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi9A/ow7:";
const OTHER: &str = "DHHC-1:00:ExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTJjyBkh:";

fn secret(text: &str) -> Secret {
    Secret::parse(text).unwrap()
}

fn key(controller: Option<&str>) -> HostKey {
    HostKey { host: secret(HOST), controller: controller.map(secret), hash: None, group: None }
}

/// The controller's side, with what it knows.
struct Controller {
    host: Nqn,
    subsystem: Nqn,
    key: Option<HostKey>,
    generator: Generator,
    exchange: Exchange,
}

impl Controller {
    fn new(key: Option<HostKey>) -> Self {
        Self {
            host: Nqn::parse("nqn.2026-01.io.braid:host").unwrap(),
            subsystem: Nqn::parse("nqn.2026-01.io.braid:subsystem").unwrap(),
            key,
            generator: Generator::new([3; 32]),
            exchange: Exchange::default(),
        }
    }

    fn handle(&mut self, input: Input<'_>) -> Result<Answer, Status> {
        let names = Names { host: &self.host, subsystem: &self.subsystem };
        self.exchange.handle(input, self.key.as_ref(), names, &mut self.generator)
    }

    fn send(&mut self, message: &[u8]) -> Verdict {
        self.handle(Input::Message(message)).expect("messages are always taken").verdict
    }

    fn receive(&mut self) -> (Vec<u8>, Verdict) {
        let mut room = [0xee; 4096];
        let answer = self.handle(Input::Room(&mut room)).unwrap();
        assert!(room[answer.written..].iter().all(|byte| *byte == 0), "nothing old is sent");
        (room[..answer.written].to_vec(), answer.verdict)
    }

    fn begin(&mut self) -> Verdict {
        self.send(&wire(&Message::Negotiate {
            secure_channel: 0,
            descriptors: &Offer::everything(),
        }))
    }
}

fn wire(message: &Message<'_>) -> Vec<u8> {
    let mut out = [0; 4096];
    let len = message.write(7, &mut out).unwrap();
    out[..len].to_vec()
}

/// Everything that happened in an exchange with a host of ours.
struct Outcome {
    host: Step,
    controller: Verdict,
    reply: Vec<u8>,
}

fn exchange(controller: &mut Controller, host: &str, expects: Option<&str>) -> Outcome {
    let mut proof = Proof::new(7, secret(host), expects.map(secret));
    let (names, mut dice) = ((controller.host, controller.subsystem), Generator::new([4; 32]));
    let names = Names { host: &names.0, subsystem: &names.1 };
    let mut out = [0; 4096];
    let len = proof.begin(&mut out);
    let mut verdict = controller.send(&out[..len]);
    let mut reply = Vec::new();
    loop {
        let (message, told) = controller.receive();
        verdict = if told == Verdict::Pending { verdict } else { told };
        let step = proof.handle(&message, names, &mut dice, &mut out);
        match step {
            Step::Send(len) => {
                reply = out[..len].to_vec();
                verdict = controller.send(&reply);
            }
            Step::SendAndDone(len) | Step::SendAndFail(len, _) => {
                let controller = controller.send(&out[..len]);
                return Outcome { host: step, controller, reply };
            }
            Step::Done | Step::Fail(_) => {
                return Outcome { host: step, controller: verdict, reply };
            }
        }
    }
}

#[test]
fn both_sides_know_each_other_by_every_hash_and_group() {
    for hash in Hash::ALL {
        for group in Group::ALL {
            for expects in [None, Some(OTHER)] {
                let only = HostKey { hash: Some(hash), group: Some(group), ..key(Some(OTHER)) };
                let mut controller = Controller::new(Some(only));
                let outcome = exchange(&mut controller, HOST, expects);
                assert_eq!(outcome.controller, Verdict::Authenticated, "{hash:?} {group:?}");
                let asked = matches!(outcome.host, Step::SendAndDone(16));
                assert_eq!((asked, !asked), (expects.is_some(), outcome.host == Step::Done));
                let public = 16 + 2 * hash.bytes();
                assert_eq!(outcome.reply.len(), public + group.bytes());
            }
        }
    }
}

#[test]
fn the_best_of_what_the_host_offers_is_chosen() {
    let mut controller = Controller::new(Some(key(None)));
    assert_eq!(controller.begin(), Verdict::Pending);
    let (challenge, _) = controller.receive();
    let Ok((7, Message::Challenge { hash, group, .. })) = Message::parse(&challenge) else {
        panic!("{challenge:?}");
    };
    assert_eq!((hash, group), (Hash::Sha512, Group::Ffdhe3072));
}

#[test]
fn a_wrong_key_is_refused_and_the_host_is_told() {
    let outcome = exchange(&mut Controller::new(Some(key(None))), OTHER, None);
    assert_eq!(outcome.host, Step::Fail(Reason::Authentication));
    assert_eq!(outcome.controller, Verdict::Told);
    let outcome = exchange(&mut Controller::new(None), HOST, None);
    assert_eq!(outcome.host, Step::Fail(Reason::Authentication), "a host without a key");
}

#[test]
fn a_controller_without_the_key_that_is_asked_for_is_not_believed() {
    let outcome = exchange(&mut Controller::new(Some(key(None))), HOST, Some(OTHER));
    assert_eq!(outcome.host, Step::Fail(Reason::Authentication), "it says that it has none");
    let outcome = exchange(&mut Controller::new(Some(key(Some(HOST)))), HOST, Some(OTHER));
    assert!(matches!(outcome.host, Step::SendAndFail(8, Reason::Authentication)));
    assert_eq!(outcome.controller, Verdict::GivenUp(Reason::Authentication));
}

#[test]
fn an_answer_serves_once() {
    let mut controller = Controller::new(Some(key(None)));
    let replayed = exchange(&mut controller, HOST, None).reply;
    controller.exchange = Exchange::default();
    assert_eq!(controller.begin(), Verdict::Pending);
    let _ = controller.receive();
    assert_eq!(controller.send(&replayed), Verdict::Refused(Reason::Authentication));
    assert_eq!(controller.send(&replayed), Verdict::Pending, "it counts no more");
    let (told, verdict) = controller.receive();
    assert_eq!(
        (Message::parse(&told).unwrap().1, verdict),
        (Message::Failure1(Reason::Authentication), Verdict::Told)
    );
}

#[test]
fn a_challenge_is_answered_in_its_turn_or_not_at_all() {
    let reply = exchange(&mut Controller::new(Some(key(None))), HOST, None).reply;
    let early = &mut Controller::new(Some(key(None)));
    assert_eq!(early.send(&reply), Verdict::Refused(Reason::Payload), "of no transaction");
    let unseen = &mut Controller::new(Some(key(None)));
    assert_eq!(unseen.begin(), Verdict::Pending);
    assert_eq!(unseen.send(&reply), Verdict::Refused(Reason::Message), "before it was fetched");
    let again = &mut Controller::new(Some(key(None)));
    assert_eq!(again.begin(), Verdict::Pending);
    assert_eq!(again.begin(), Verdict::Refused(Reason::Message), "begun twice");
    let short = &mut Controller::new(Some(key(None)));
    assert_eq!(short.begin(), Verdict::Pending);
    let _ = short.receive();
    assert_eq!(short.send(&reply[..reply.len() - 1]), Verdict::Refused(Reason::Payload));
}

#[test]
fn the_controllers_own_question_handed_back_is_no_question() {
    let only = HostKey { group: Some(Group::Null), ..key(Some(HOST)) };
    let mut controller = Controller::new(Some(only.clone()));
    assert_eq!(controller.begin(), Verdict::Pending);
    let (challenge, _) = controller.receive();
    // A twin draws the same, so its host's answer is right; only the question differs.
    let mut reply = exchange(&mut Controller::new(Some(only)), HOST, Some(HOST)).reply;
    reply[16 + 64..16 + 128].copy_from_slice(&challenge[16..16 + 64]);
    assert_eq!(controller.send(&reply), Verdict::Refused(Reason::Authentication));
}

/// What is done to the offer of everything.
type Change<'a> = &'a dyn Fn(&mut [u8; 64]);

#[test]
fn what_cannot_be_agreed_on_is_refused_for_its_reason() {
    let negotiate = |secure_channel, change: &dyn Fn(&mut [u8; 64])| {
        let mut offer = Offer::everything();
        change(&mut offer);
        let message = Message::Negotiate { secure_channel, descriptors: &offer };
        Controller::new(Some(key(None))).send(&wire(&message))
    };
    let rows: [(u8, Change<'_>, Reason); 5] = [
        (1, &|_| (), Reason::SecureChannel),
        (0, &|offer| offer[0] = 2, Reason::Protocol),
        (0, &|offer| offer[4..7].fill(9), Reason::Hash),
        (0, &|offer| offer[34..38].fill(5), Reason::Group),
        (0, &|offer| offer[2] = 31, Reason::Payload),
    ];
    for (secure_channel, change, reason) in rows {
        assert_eq!(negotiate(secure_channel, change), Verdict::Refused(reason));
    }
}

#[test]
fn a_room_that_is_too_small_loses_nothing() {
    let mut controller = Controller::new(Some(key(None)));
    let out_of_turn = controller.handle(Input::Room(&mut [0; 4096]));
    assert_eq!(out_of_turn, Err(Status::SEQUENCE_ERROR.dnr()));
    assert_eq!(controller.begin(), Verdict::Pending);
    let small = controller.handle(Input::Room(&mut [0; 100]));
    assert_eq!(small, Err(Status::INVALID_FIELD.dnr()));
    let (challenge, verdict) = controller.receive();
    assert_eq!((challenge.len(), verdict), (16 + 64 + 384, Verdict::Pending));
    let again = controller.handle(Input::Room(&mut [0; 4096]));
    assert_eq!(again, Err(Status::SEQUENCE_ERROR.dnr()), "it is given once");
}
