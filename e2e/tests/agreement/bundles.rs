//! What there is among the referrers: bundles that sign the image, and what is no signature of it.

use countersign_e2e::{Layer, Referrer};
use serde_json::{Value, json};

use crate::bench::{decoded, flipped, referrer, referrer_of};
use crate::differences::Property::{
    ArtifactType, DigestOfSubject, OtherPredicate, ProtoJson, SignPredicate, SignatureText, Size,
    StatementType, Subject, TransparencyLog,
};
use crate::variation::{CORE, Variation, bad, good};

type Bundle = Variation<Referrer>;

/// Those that every kind of key makes.
pub(crate) const BUNDLES_CORE: [Bundle; CORE] = [
    good("as cosign writes it", |b| referrer(&b.bundle(b.statement()))),
    bad("by another key", |b| referrer(&b.bundle_of_other(&b.statement()))),
    bad("a bit of the signature flipped", |b| {
        b.edited(|bundle| edit(signature(bundle), |text| flipped(text, |length| length / 2)))
    }),
    bad("a byte of the statement changed", |b| {
        // White space, so that it reads as before.
        let mut bundle = b.bundle(b.statement() + "\n");
        edit(&mut bundle["dsseEnvelope"]["payload"], |text| {
            let mut body = decoded(&json!(text));
            *body.last_mut().unwrap() = b' ';
            encoded(&body)
        });
        referrer(&bundle)
    }),
    bad("another image's", |b| referrer(&b.bundle(b.another_digest(&b.statement())))),
];

/// Those that say how bundles are read.
pub(crate) const BUNDLES: &[Bundle] = &[
    good("white space in the statement", |b| {
        let value: Value = serde_json::from_str(&b.statement()).unwrap();
        referrer(&b.bundle(serde_json::to_string_pretty(&value).unwrap()))
    }),
    bad("the statement written anew", |b| {
        b.edited(|bundle| {
            edit(&mut bundle["dsseEnvelope"]["payload"], |text| {
                let value: Value = serde_json::from_slice(&decoded(&json!(text))).unwrap();
                encoded(&serde_json::to_vec_pretty(&value).unwrap())
            });
        })
    }),
    bad("an attestation", |b| {
        let predicate_type =
            b.statement().replace("https://sigstore.dev/cosign/sign/v1", "https://spdx.dev/Document");
        referrer(
            &b.bundle(predicate_type.replace("\"predicate\":{}", "\"predicate\":{\"spdxVersion\":\"2.3\"}")),
        )
    })
    .of(OtherPredicate),
    bad("an attestation by another key", |b| {
        let text = b.statement().replace("https://sigstore.dev/cosign/sign/v1", "https://spdx.dev/Document");
        referrer(&b.bundle_of_other(&text))
    }),
    bad("no predicate type", |b| {
        let text = b.statement().replace("\"predicateType\":\"https://sigstore.dev/cosign/sign/v1\",", "");
        referrer(&b.bundle(text))
    })
    .of(OtherPredicate),
    bad("something in the predicate", |b| {
        referrer(&b.bundle(b.statement().replace("\"predicate\":{}", "\"predicate\":{\"a\":1}")))
    })
    .of(SignPredicate),
    good("no predicate", |b| referrer(&b.bundle(b.statement().replace("\"predicate\":{},", "")))),
    good("predicate null", |b| {
        referrer(&b.bundle(b.statement().replace("\"predicate\":{}", "\"predicate\":null")))
    }),
    bad("a statement of another type", |b| {
        referrer(
            &b.bundle(b.statement().replace("https://in-toto.io/Statement/v1", "https://in-toto.io/Link/v1")),
        )
    })
    .of(StatementType),
    good("a statement of version 0.1", |b| {
        referrer(&b.bundle(b.statement().replace("in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1")))
    }),
    bad("an envelope of another type", |b| {
        referrer(&b.bundle_of_type("application/json", b.statement().as_bytes()))
    }),
    bad("an envelope whose type was changed", |b| {
        b.edited(|bundle| bundle["dsseEnvelope"]["payloadType"] = json!("application/json"))
    }),
    bad("an envelope whose type was changed back", |b| {
        let mut bundle = b.bundle_of_type("application/json", b.statement().as_bytes());
        bundle["dsseEnvelope"]["payloadType"] = json!("application/vnd.in-toto+json");
        referrer(&bundle)
    }),
    bad("a signature of a file in an envelope", |b| {
        referrer(&b.bundle_of_type("text/plain", b"a release note\n"))
    }),
    bad("two signatures in an envelope", |b| {
        b.edited(|bundle| {
            let signatures = bundle["dsseEnvelope"]["signatures"].as_array_mut().unwrap();
            signatures.push(signatures[0].clone());
        })
    }),
    bad("no signature in the envelope", |b| {
        b.edited(|bundle| bundle["dsseEnvelope"]["signatures"] = json!([]))
    }),
    bad("an empty signature", |b| b.edited(|bundle| *signature(bundle) = json!(""))),
    bad("a signature that is not base64", |b| {
        b.edited(|bundle| edit(signature(bundle), |text| format!("!{}", &text[1..])))
    }),
    good("a signature in the other alphabet", |b| {
        b.edited(|bundle| edit(signature(bundle), |text| text.replace('+', "-").replace('/', "_")))
    }),
    good("a signature without padding", |b| {
        b.edited(|bundle| edit(signature(bundle), |text| text.trim_end_matches('=').to_owned()))
    }),
    good("a signature in lines", |b| {
        b.edited(|bundle| edit(signature(bundle), |text| format!("{}\r\n{}\r\n", &text[..76], &text[76..])))
    }),
    good("a signature with a space at its end", |b| {
        b.edited(|bundle| edit(signature(bundle), |text| format!("{text} ")))
    })
    .of(SignatureText),
    good("a statement in the other alphabet", |b| {
        b.edited(|bundle| {
            edit(&mut bundle["dsseEnvelope"]["payload"], |text| text.replace('+', "-").replace('/', "_"));
        })
    }),
    bad("a bundle that was cut off", |b| {
        let text = b.bundle(b.statement()).to_string();
        referrer_of(&text[..text.len() - 3])
    }),
    bad("a statement that was cut off", |b| {
        let text = b.statement();
        referrer(&b.bundle(&text[..text.len() - 3]))
    }),
    bad("bytes after the bundle", |b| referrer_of(b.bundle(b.statement()).to_string() + "{}")),
    bad("no JSON", |_| referrer_of("a bundle")),
    bad("a bundle as a list of its fields", |b| {
        let bundle = b.bundle(b.statement());
        referrer(&json!([bundle["mediaType"], bundle["verificationMaterial"], bundle["dsseEnvelope"]]))
    }),
    bad("an envelope as a list of its fields", |b| {
        b.edited(|bundle| {
            let envelope = &bundle["dsseEnvelope"];
            bundle["dsseEnvelope"] =
                json!([envelope["payload"], envelope["payloadType"], [[envelope["signatures"][0]["sig"]]]]);
        })
    }),
    bad("a statement as a list of its fields", |b| {
        let hex = b.image.digest.hex();
        let fields = json!([
            "https://in-toto.io/Statement/v1",
            [{ "digest": { "sha256": hex } }],
            "https://sigstore.dev/cosign/sign/v1",
            {},
        ]);
        referrer(&b.bundle(fields.to_string()))
    }),
    bad("a subject as a list of its fields", |b| {
        let subject = format!("{{\"digest\":{{\"sha256\":\"{}\"}}}}", b.image.digest.hex());
        let fields = format!("[{{\"sha256\":\"{}\"}},null]", b.image.digest.hex());
        referrer(&b.bundle(b.statement().replace(&subject, &fields)))
    }),
    bad("a signature of a message", |b| {
        b.edited(|bundle| {
            let content = json!({
                "messageDigest": { "algorithm": "SHA2_256", "digest": encoded(&[7; 32]) },
                "signature": bundle["dsseEnvelope"]["signatures"][0]["sig"],
            });
            bundle["messageSignature"] = content;
            bundle.as_object_mut().unwrap().remove("dsseEnvelope");
        })
    }),
    good("the media type as older writers spell it", |b| {
        b.edited(|bundle| bundle["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.3"))
    }),
    bad("version 0.2", |b| {
        b.edited(|bundle| bundle["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2"))
    }),
    bad("version 0.4", |b| {
        b.edited(|bundle| bundle["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v0.4+json"))
    }),
    bad("no media type", |b| b.edited(|bundle| _ = bundle.as_object_mut().unwrap().remove("mediaType"))),
    good("no hint", |b| b.edited(|bundle| bundle["verificationMaterial"]["publicKey"] = json!({}))),
    good("a wrong hint", |b| {
        b.edited(|bundle| bundle["verificationMaterial"]["publicKey"]["hint"] = json!("another key"))
    }),
    bad("a certificate in place of the key", |b| {
        b.edited(|bundle| {
            bundle["verificationMaterial"] = json!({ "certificate": { "rawBytes": encoded(b"none") } });
        })
    }),
    good("a certificate besides the key", |b| {
        b.edited(|bundle| {
            bundle["verificationMaterial"]["certificate"] = json!({ "rawBytes": encoded(b"none") });
        })
    })
    .of(ProtoJson),
    bad("no key", |b| b.edited(|bundle| bundle["verificationMaterial"] = json!({ "tlogEntries": [] }))),
    good("names as in the schema", |b| {
        let text = b.bundle(b.statement()).to_string();
        let names = [
            ("mediaType", "media_type"),
            ("verificationMaterial", "verification_material"),
            ("publicKey", "public_key"),
            ("dsseEnvelope", "dsse_envelope"),
        ];
        referrer_of(names.iter().fold(text, |text, (name, other)| text.replace(name, other)))
    }),
    bad("a name that is not in the schema", |b| {
        referrer_of(b.bundle(b.statement()).to_string().replace("payloadType", "payload_type"))
    }),
    bad("names in another case", |b| {
        referrer_of(b.bundle(b.statement()).to_string().replace("dsseEnvelope", "DsseEnvelope"))
    }),
    good("a field that nobody knows", |b| b.edited(|bundle| bundle["made"] = json!(1))).of(ProtoJson),
    good("a field in the statement that nobody knows", |b| {
        referrer(&b.bundle(b.statement().replacen('{', "{\"made\":1,", 1)))
    })
    .of(ProtoJson),
    bad("a media type twice", |b| {
        referrer_of(b.bundle(b.statement()).to_string().replacen('{', "{\"mediaType\":\"a\",", 1))
    }),
    bad("a predicate type twice", |b| {
        referrer(&b.bundle(b.statement().replacen(
            '{',
            "{\"predicateType\":\"https://spdx.dev/Document\",",
            1,
        )))
    }),
    bad("subjects twice", |b| referrer(&b.bundle(b.statement().replacen('{', "{\"subject\":[],", 1)))),
    bad("a digest twice", |b| {
        let two = format!("{{\"sha256\":\"{}\",\"sha256\"", "ab".repeat(32));
        referrer(&b.bundle(b.statement().replace("{\"sha256\"", &two)))
    }),
    bad("an annotation twice", |b| {
        let two = "\"annotations\":{\"env\":\"test\",\"env\":\"live\"},\"digest\"";
        referrer(&b.bundle(b.statement().replace("\"digest\"", two)))
    }),
    good("annotations", |b| {
        referrer(
            &b.bundle(b.statement().replace("\"digest\"", "\"annotations\":{\"env\":\"live\"},\"digest\"")),
        )
    }),
    good("a name of the subject", |b| {
        referrer(&b.bundle(b.statement().replace("\"digest\"", "\"name\":\"quay.io/a/b\",\"digest\"")))
    }),
    good("the second of two subjects", |b| {
        let first = format!("\"subject\":[{{\"digest\":{{\"sha256\":\"{}\"}}}},", "ab".repeat(32));
        referrer(&b.bundle(b.statement().replace("\"subject\":[", &first)))
    }),
    bad("no subject", |b| referrer(&b.bundle(subjects(&b.statement(), "")))),
    bad("more subjects than there may be", |b| {
        let one = format!("{{\"digest\":{{\"sha256\":\"{}\"}}}},", b.image.digest.hex());
        referrer(
            &b.bundle(b.statement().replace("\"subject\":[", &format!("\"subject\":[{}", one.repeat(1024)))),
        )
    }),
    bad("the digest of another algorithm", |b| {
        referrer(&b.bundle(b.statement().replace("sha256", "sha512")))
    }),
    bad("the digest in upper case", |b| {
        let hex = b.image.digest.hex();
        referrer(&b.bundle(b.statement().replace(hex, &hex.to_uppercase())))
    }),
    good("another subject whose digest is in base64", |b| {
        let first = "\"subject\":[{\"digest\":{\"dirHash\":\"h1:Zm9v\"}},";
        referrer(&b.bundle(b.statement().replace("\"subject\":[", first)))
    })
    .of(DigestOfSubject),
    good("a subject with 40 digests", |b| {
        let more: String = (0..39).map(|number| format!("\"other{number}\":\"00\",")).collect();
        referrer(&b.bundle(b.statement().replace("\"digest\":{", &format!("\"digest\":{{{more}"))))
    })
    .of(DigestOfSubject),
    good("an entry of a transparency log that is none", |b| {
        b.edited(|bundle| bundle["verificationMaterial"]["tlogEntries"] = json!([{ "logIndex": "1" }]))
    })
    .of(TransparencyLog),
    good("a timestamp that is none", |b| {
        b.edited(|bundle| {
            bundle["verificationMaterial"]["timestampVerificationData"] =
                json!({ "rfc3161Timestamps": [{ "signedTimestamp": encoded(b"none") }] });
        })
    }),
    bad("a bundle of more than 1 MiB", |b| {
        let text = b.bundle(b.statement()).to_string();
        referrer_of(text + &" ".repeat(1 << 20))
    })
    .of(Size),
    bad("a layer of another type", |b| {
        let mut made = referrer(&b.bundle(b.statement()));
        made.layers[0].media_type = "application/octet-stream".into();
        made
    }),
    bad("two layers", |b| {
        let mut made = referrer(&b.bundle(b.statement()));
        made.layers.push(Layer { content: b"another".to_vec(), ..made.layers[0].clone() });
        made
    }),
    bad("no layer", |b| {
        let mut made = referrer(&b.bundle(b.statement()));
        made.layers.clear();
        made
    }),
    bad("an artifact of another type", |b| {
        let mut made = referrer(&b.bundle(b.statement()));
        made.artifact_type = Some("application/vnd.example.report".to_owned());
        made
    })
    .of(ArtifactType),
    good("an artifact of no type", |b| {
        let mut made = referrer(&b.bundle(b.statement()));
        made.artifact_type = None;
        made
    }),
    bad("listed, and refers to nothing", |b| {
        let mut made = referrer(&b.bundle(b.statement()));
        made.subject = false;
        made
    })
    .of(Subject),
];

fn signature(bundle: &mut Value) -> &mut Value {
    &mut bundle["dsseEnvelope"]["signatures"][0]["sig"]
}

fn edit(text: &mut Value, change: impl FnOnce(&str) -> String) {
    *text = json!(change(text.as_str().unwrap()));
}

fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The statement with these subjects in place of its own.
fn subjects(statement: &str, these: &str) -> String {
    let mut value: Value = serde_json::from_str(statement).unwrap();
    value["subject"] = serde_json::from_str(&format!("[{these}]")).unwrap();
    value.to_string()
}
