"""Signs requests with botocore and prints them as vectors: `cargo xtask vectors` keeps what this prints.

Each case is a stanza of `key: value` lines. Values are as they stand, but for the body, which is hexadecimal. `expect`
is the signed URL (form query) or the Authorization header (form header).

Three ways through botocore, chosen by the case:

* header  SigV4Auth or S3SigV4Auth, as for any call of an SDK
* query   SigV4QueryAuth or S3SigV4QueryAuth, as for any presigned URL
* bare    botocore's canonical request, string to sign and signature for a query that this script writes. For what its
          query signer cannot do: no X-Amz-Expires, a session token after the signature, repeated names, escapes that
          are no UTF-8
"""

import datetime
import random
import sys
from urllib.parse import quote

import botocore
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TIME = "20150830T123600Z"
STAMP = "%Y%m%dT%H%M%SZ"
DEFAULTS = {
    "method": "GET",
    "url": "https://example.amazonaws.com/",
    "headers": [],
    "body": b"",
    "unsigned": False,
    "region": "us-east-1",
    "service": "service",
    "id": "AKIDEXAMPLE",
    "secret": SECRET,
    "token": None,
    "time": TIME,
    "expires": None,
    "path": "normalized",
    "token_mode": "signed",
}


def encode(text):
    return quote(text, safe="-_.~")


def sign(case):
    """What botocore makes of a case."""
    now = datetime.datetime.strptime(case["time"], STAMP).replace(tzinfo=datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda: now
    request = AWSRequest(method=case["method"], url=case["url"], data=case["body"])
    for name, value in case["headers"]:
        request.headers.add_header(name, value)
    request.context["payload_signing_enabled"] = not case["unsigned"]
    s3 = case["path"] == "as-sent"
    scope = (case["service"], case["region"])
    token = case["token"]

    if case["form"] == "header":
        kind = botocore.auth.S3SigV4Auth if s3 else botocore.auth.SigV4Auth
        kind(Credentials(case["id"], case["secret"], token), *scope).add_auth(request)
        return request.headers["Authorization"]

    if case["form"] == "query":
        assert (case["token_mode"], case["unsigned"]) == ("signed", s3)
        kind = botocore.auth.S3SigV4QueryAuth if s3 else botocore.auth.SigV4QueryAuth
        signer = kind(Credentials(case["id"], case["secret"], token), *scope, expires=case["expires"])
        # It would move the body into the query.
        assert not case["body"]
        signer.add_auth(request)
        return request.url

    kind = botocore.auth.S3SigV4Auth if s3 else botocore.auth.SigV4Auth
    signer = kind(Credentials(case["id"], case["secret"]), *scope)
    request.context["timestamp"] = case["time"]
    appended = token is not None and case["token_mode"] == "appended"
    own = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", signer.scope(request)),
        ("X-Amz-Date", case["time"]),
        ("X-Amz-Expires", case["expires"] and str(case["expires"])),
        ("X-Amz-SignedHeaders", signer.signed_headers(signer.headers_to_sign(request))),
        ("X-Amz-Security-Token", None if appended else token),
    ]
    request.url += "&" if "?" in request.url else "?"
    request.url += "&".join(f"{name}={encode(value)}" for name, value in own if value)
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    url = f"{request.url}&X-Amz-Signature={signer.signature(to_sign, request)}"
    return f"{url}&X-Amz-Security-Token={encode(token)}" if appended else url


def show(case):
    form = "header" if case["form"] == "header" else "query"
    lines = [f"form: {form}"]
    for key in ("method", "url", "region", "service", "id", "secret", "time", "path", "token_mode"):
        lines.append(f"{key}: {case[key]}")
    lines += [f"header: {name}: {value}" for name, value in case["headers"]]
    lines.append(f"body: {'unsigned' if case['unsigned'] else case['body'].hex()}")
    if case["token"] is not None:
        lines.append(f"token: {case['token']}")
    if case["expires"] is not None:
        lines.append(f"expires: {case['expires']}")
    lines.append(f"expect: {sign(case)}")
    return "\n".join(lines)


def written():
    """Cases chosen one by one."""
    host = "https://a1b2c3example-ats.iot.us-east-1.amazonaws.com"
    token = "FwoGZXIvYXdzEXAMPLE+fake/token=="
    iot = {"form": "bare", "service": "iotdevicegateway", "token_mode": "appended", "token": token}
    for url in (f"{host}/mqtt", f"{host}:8443/mqtt", f"{host}/a%20b/mqtt", f"{host}/mqtt?x=1&a=b%20c",
                "https://[2001:db8::1]:8443/mqtt", "https://127.0.0.1/mqtt"):
        yield iot | {"url": url}
    yield iot | {"url": f"{host}/mqtt", "token": None}
    yield iot | {"url": f"{host}/mqtt", "token": " a~*'()!\u00fc+/="}
    yield iot | {"url": f"{host}/mqtt", "id": "AKID/EXAMPLE+"}
    yield iot | {"url": f"{host}/mqtt", "expires": 86400}
    yield iot | {"url": f"{host}/mqtt", "time": "20240229T235959Z"}
    yield iot | {"url": f"{host}/mqtt", "region": "cn-north-1"}

    publish = {"form": "header", "method": "POST", "service": "iotdata", "token": token, "body": b'{"a": 1}'}
    for topic in ("a", "a%2Fb", "a%2Fb%20c", "%24aws%2Frules%2Fr%2Fx", "%C3%BC"):
        yield publish | {"url": f"{host}/topics/{topic}?qos=1"}
    yield publish | {
        "url": f"{host}/topics/a?qos=0&retain=true&contentType=text%2Fplain",
        "headers": [("x-amz-mqtt5-user-properties", "W3siYSI6ImIifV0="), ("User-Agent", "not signed")],
    }

    for path in ("", "/", "//", "//a//b/", "/a/./b", "/a/../b/", "/../a", "/a/..", "/a/.", "/a/b/..", "/%2E%2e/a",
                 "/a%2Fb", "/a!$&'()*+,;=:@~b", "/%E1%88%B4"):
        for form in ("header", "query"):
            yield {"form": form, "url": f"https://example.amazonaws.com{path}",
                   "expires": 60 if form == "query" else None}
        yield {"form": "query", "url": f"https://bucket.s3.amazonaws.com{path or '/'}", "service": "s3",
               "path": "as-sent", "unsigned": True, "expires": 604800, "token": token}

    for query in ("a=1&a=0&a=", "a=%FF&a=%FE", "b=&a=&b=",
                  "a%2B=%2B&a=%20", "Z=1&a=2&%C3%A4=3", "a-=1&a=2&a.=3&a~=4&a_=5", "%25=%25zz", "a=%2F%3F%3D%26"):
        yield {"form": "bare", "url": f"https://example.amazonaws.com/?{query}"}
        yield {"form": "header", "url": f"https://example.amazonaws.com/?{query}"}

    yield {"form": "header", "headers": [("X-B", " a \t b  "), ("x-a", "2"), ("X-A", "1"), ("Te", "x"), ("Upgrade", "x")]}
    yield {"form": "header", "method": "PUT", "service": "s3", "path": "as-sent", "body": bytes(range(256)),
           "url": "http://bucket.s3.amazonaws.com/a//b/../%20"}
    for time in ("19700101T000000Z", "20000229T010203Z", "99991231T235959Z"):
        yield {"form": "query", "expires": 1, "time": time}


def drawn(count):
    """Cases drawn at random, the same ones every time."""
    draw = random.Random(4)
    text = "abzAZ019-._~!*'()/ %&=+:@?#[]\u00fc\u6f22"

    def some(alphabet, least, most):
        return "".join(draw.choice(alphabet) for _ in range(draw.randint(least, most)))

    for _ in range(count):
        # No name twice: its query signer keeps only the first. A dictionary, for an order that stays.
        names = dict.fromkeys(some(text, 1, 4) for _ in range(draw.randint(0, 5)))
        query = "&".join(f"{encode(name)}={encode(some(text, 0, 6))}" for name in names)
        segments = [draw.choice(["", ".", "..", encode(some(text, 1, 5)), encode(some(text, 1, 5))])
                    for _ in range(draw.randint(0, 5))]
        path = "".join(f"/{segment}" for segment in segments) or "/"
        form = draw.choice(["header", "query", "bare"])
        s3 = draw.random() < 0.3
        case = {
            "form": form,
            "method": draw.choice(["GET", "PUT", "POST"]),
            "url": f"https://{some('abc09', 1, 5)}.example.com{path}" + (f"?{query}" if query else ""),
            "headers": [(f"x-{some('abAB-', 1, 2)}", some("ab ,;\t", 0, 6).strip()) for _ in range(draw.randint(0, 4))],
            "body": b"" if form == "query" else draw.randbytes(draw.randint(0, 80)),
            "id": some("AKID09", 4, 20),
            "secret": some("abAB09+/", 1, 80),
            "token": draw.choice([None, some("abAB09+/=", 1, 60)]),
            "time": datetime.datetime.fromtimestamp(draw.randrange(2**32), datetime.timezone.utc).strftime(STAMP),
            "path": "as-sent" if s3 else "normalized",
            "service": "s3" if s3 else "execute-api",
            "expires": None if form == "header" else draw.randint(1, 604800),
        }
        if form == "bare":
            case["token_mode"] = "appended"
            case["expires"] = draw.choice([None, case["expires"]])
        if s3 and form == "query":
            case["unsigned"] = True
        yield case


def main():
    sys.stdout.reconfigure(newline="\n", encoding="utf-8")
    print(f"# Made by `cargo xtask vectors` with botocore {botocore.__version__}; not to be edited.")
    for case in [*written(), *drawn(200)]:
        print()
        print(show(DEFAULTS | case))


if __name__ == "__main__":
    main()
