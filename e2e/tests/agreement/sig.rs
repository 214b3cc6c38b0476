//! What there is in `.sig` tags: good signatures, and what is no signature of the image.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_e2e::Layer;
use countersign_signature::SIGNATURE_ANNOTATION;

use crate::bench::flipped;
use crate::differences::Property::{
    CaseOfNames, Certificate, Count, Depth, DuplicateNames, LayerType, NotUnicode, SignatureText, Size, Type,
};
use crate::variation::{CORE, Variation, bad, good};

type Sig = Variation<Vec<Layer>>;

const TYPE: &str = "cosign container image signature";

/// Those that every kind of key makes.
pub(crate) const SIG_CORE: [Sig; CORE] = [
    good("as cosign writes it", |b| vec![b.layer(b.payload())]),
    bad("by another key", |b| vec![b.layer_of_other()]),
    bad("a bit of the signature flipped", |b| b.signature(|text| flipped(text, |length| length / 2))),
    bad("a byte of the payload changed", |b| {
        let mut layer = b.layer(b.payload().replace("\"optional\":null", "\"optional\":{\"a\":\"1\"}"));
        let at = layer.content.len() - 4;
        layer.content[at] = b'2';
        vec![layer]
    }),
    bad("another image's", |b| vec![b.layer(b.another_digest(&b.payload()))]),
];

/// Those that say how signatures are read.
pub(crate) const SIG: &[Sig] = &[
    good("white space in the payload", |b| vec![b.layer(pretty(&b.payload()))]),
    bad("the payload written anew", |b| {
        let mut layer = b.layer(b.payload());
        layer.content = pretty(&b.payload()).into_bytes();
        vec![layer]
    }),
    bad("another type", |b| vec![b.layer(b.payload().replace(TYPE, "atomic container signature"))]).of(Type),
    bad("no type", |b| vec![b.layer(b.payload().replace(&format!(",\"type\":\"{TYPE}\""), ""))]).of(Type),
    bad("signature of a file", |b| vec![b.layer("a release note\n")]),
    bad("signature of JSON without `critical`", |b| vec![b.layer(b.payload().replace("critical", "other"))]),
    bad("payload cut off", |b| vec![b.layer(&b.payload()[..b.payload().len() - 3])]),
    bad("bytes after the payload", |b| vec![b.layer(b.payload() + "{}")]),
    bad("a byte order mark", |b| vec![b.layer(format!("\u{feff}{}", b.payload()))]),
    bad("payload in a list", |b| vec![b.layer(format!("[{}]", b.payload()))]),
    bad("payload as a list of its fields", |b| {
        let fields = format!("[[[[\"{}\"]],\"{TYPE}\"],null]", b.image.digest);
        vec![b.layer(fields)]
    }),
    bad("`critical` as a list of its fields", |b| {
        vec![b.layer(format!(
            "{{\"critical\":[{{\"docker-manifest-digest\":\"{}\"}},\"{TYPE}\"]}}",
            b.image.digest
        ))]
    }),
    bad("`image` as a list of its fields", |b| {
        vec![b.layer(format!("{{\"critical\":{{\"image\":[\"{}\"],\"type\":\"{TYPE}\"}}}}", b.image.digest))]
    }),
    bad("digest in upper case", |b| {
        let hex = b.image.digest.hex();
        vec![b.layer(b.payload().replace(hex, &hex.to_uppercase()))]
    }),
    bad("digest without its algorithm", |b| vec![b.layer(b.payload().replace("sha256:", ""))]),
    bad("digest twice, the right one last", |b| {
        let name = "\"docker-manifest-digest\":";
        let two = format!("{name}\"sha256:{}\",{name}", "ab".repeat(32));
        vec![b.layer(b.payload().replace(name, &two))]
    })
    .of(DuplicateNames),
    bad("digest twice, the right one first", |b| {
        let digest = format!("\"{}\"", b.image.digest);
        let two = format!("{digest},\"docker-manifest-digest\":\"sha256:{}\"", "ab".repeat(32));
        vec![b.layer(b.payload().replace(&digest, &two))]
    }),
    bad("`critical` twice", |b| {
        vec![b.layer(b.payload().replacen('{', &format!("{{\"critical\":{{\"type\":\"{TYPE}\"}},"), 1))]
    })
    .of(DuplicateNames),
    bad("an annotation twice", |b| {
        vec![b.layer(b.payload().replace("null", "{\"env\":\"test\",\"env\":\"live\"}"))]
    })
    .of(DuplicateNames),
    bad("names in another case", |b| {
        vec![b.layer(b.payload().replace("docker-manifest-digest", "Docker-Manifest-Digest"))]
    })
    .of(CaseOfNames),
    good("a field that nobody knows", |b| vec![b.layer(b.payload().replacen('{', "{\"made\":[1,{}],", 1))]),
    good("no identity", |b| {
        let identity = format!("\"identity\":{{\"docker-reference\":\"{}\"}},", b.image.name);
        vec![b.layer(b.payload().replace(&identity, ""))]
    }),
    good("identity of another repository", |b| {
        vec![b.layer(b.payload().replace(&b.image.name, "quay.io/team/other"))]
    }),
    bad("identity that is a number", |b| {
        vec![b.layer(b.payload().replace(&format!("\"{}\"", b.image.name), "1"))]
    }),
    good("annotations", |b| vec![b.layer(b.payload().replace("null", "{\"env\":\"live\",\"build\":7}"))]),
    good("no annotations", |b| vec![b.layer(b.payload().replace(",\"optional\":null", ""))]),
    bad("annotations that are a list", |b| vec![b.layer(b.payload().replace("null", "[1]"))]),
    bad("half a surrogate pair in an annotation", |b| {
        vec![b.layer(b.payload().replace("null", "{\"a\":\"\\ud800\"}"))]
    })
    .of(NotUnicode),
    bad("a byte in an annotation that is not UTF-8", |b| {
        let payload = b.payload().replace("null", "{\"a\":\"?\"}");
        let bytes: Vec<u8> = payload.bytes().map(|byte| if byte == b'?' { 0xff } else { byte }).collect();
        vec![b.layer(bytes)]
    })
    .of(NotUnicode),
    bad("an annotation of 200 lists in one another", |b| {
        let lists = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        vec![b.layer(b.payload().replace("null", &lists))]
    })
    .of(Depth),
    bad("a payload of more than 1 MiB", |b| {
        let long = format!("{{\"a\":\"{}\"}}", "a".repeat(1 << 20));
        vec![b.layer(b.payload().replace("null", &long))]
    })
    .of(Size),
    bad("64 of another key before a good one", |b| {
        let mut layers: Vec<_> = (0..64).map(|_| b.layer_of_other()).collect();
        layers.push(b.layer(b.payload()));
        layers
    })
    .of(Count),
    bad("no layers", |_| Vec::new()),
    bad("no annotation with a signature", |b| {
        let mut layer = b.layer(b.payload());
        layer.annotations.clear();
        vec![layer]
    }),
    bad("an empty signature", |b| b.signature(|_| String::new())),
    bad("a signature that is not base64", |b| b.signature(|text| format!("!{}", &text[1..]))),
    bad("a signature in hexadecimal digits", |b| {
        b.signature(|text| STANDARD.decode(text).unwrap().iter().map(|byte| format!("{byte:02x}")).collect())
    }),
    bad("a byte after the signature", |b| {
        b.signature(|text| STANDARD.encode([STANDARD.decode(text).unwrap(), vec![0]].concat()))
    }),
    bad("half of the signature", |b| b.signature(|text| text[..text.len() / 8 * 4].to_owned())),
    good("a signature in the other alphabet", |b| {
        let mut layer = b.layer_with(['+', '/']);
        let text = layer.annotations[SIGNATURE_ANNOTATION].replace('+', "-").replace('/', "_");
        layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), text);
        vec![layer]
    })
    .of(SignatureText),
    good("a signature without padding", |b| {
        let mut layer = b.layer_with(['=', '=']);
        let text = layer.annotations[SIGNATURE_ANNOTATION].trim_end_matches('=').to_owned();
        layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), text);
        vec![layer]
    })
    .of(SignatureText),
    good("a signature with a space at its end", |b| b.signature(|text| format!("{text} "))).of(SignatureText),
    good("a signature with a line break at its end", |b| b.signature(|text| format!("{text}\n"))),
    good("a signature in lines", |b| b.signature(|text| format!("{}\r\n{}\n", &text[..76], &text[76..]))),
    bad("a layer of another type", |b| {
        let mut layer = b.layer(b.payload());
        layer.media_type = "application/octet-stream".into();
        vec![layer]
    })
    .of(LayerType),
    good("a certificate that is none", |b| {
        let mut layer = b.layer(b.payload());
        let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        layer.annotations.insert("dev.sigstore.cosign/certificate".to_owned(), text.to_owned());
        vec![layer]
    })
    .of(Certificate),
];

fn pretty(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}
