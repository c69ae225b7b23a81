"""Signed tokens, made by hand: also such as no library would make."""
import base64
import hashlib
import hmac
import json
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def b64(data):
    data = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(value, size):
    return b64(value.to_bytes(size, "big"))


def claims_of(token):
    """What a token says, unverified."""
    return json.loads(unb64(token.split(".")[1]))


def header_of(token):
    return json.loads(unb64(token.split(".")[0]))


class Key:
    """A key of one algorithm, with an id."""

    def __init__(self, alg, kid="k1", secret=b"a secret of at least 256 bits, 32"):
        self.alg, self.kid, self.secret = alg, kid, secret
        if alg == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())
        elif alg == "RS256":
            self.private = rsa.generate_private_key(65537, 2048)
        elif alg == "Ed25519":
            self.private = ed25519.Ed25519PrivateKey.generate()

    def jwk(self):
        """What a verifier knows: of a shared secret all of it."""
        if self.alg == "HS256":
            return {"kty": "oct", "k": b64(self.secret), "alg": "HS256", "kid": self.kid}
        if self.alg == "Ed25519":
            from cryptography.hazmat.primitives import serialization
            raw = self.private.public_key().public_bytes(serialization.Encoding.Raw,
                                                         serialization.PublicFormat.Raw)
            return {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": self.kid}
        n = self.private.public_key().public_numbers()
        if self.alg == "ES256":
            return {"kty": "EC", "crv": "P-256", "x": number(n.x, 32), "y": number(n.y, 32),
                    "alg": "ES256", "kid": self.kid}
        return {"kty": "RSA", "n": number(n.n, 256), "e": number(n.e, 3), "alg": "RS256", "kid": self.kid}

    def sign(self, text):
        if self.alg == "HS256":
            return hmac.new(self.secret, text, hashlib.sha256).digest()
        if self.alg == "Ed25519":
            return self.private.sign(text)
        if self.alg == "ES256":
            r, s = utils.decode_dss_signature(self.private.sign(text, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return self.private.sign(text, padding.PKCS1v15(), hashes.SHA256())

    def token(self, claims, header=None, raw_header=None, raw_claims=None):
        """header: members in place of or beside the usual ones (None: left out); raw: the bytes as they are."""
        head = {"alg": self.alg, "kid": self.kid, "typ": "JWT", **(header or {})}
        head = {k: v for k, v in head.items() if v is not None}
        text = b64(raw_header if raw_header is not None else json.dumps(head)) + "." + \
            b64(raw_claims if raw_claims is not None else json.dumps(claims))
        return text + "." + b64(self.sign(text.encode()))


def jwks(*keys):
    return {"keys": [key.jwk() for key in keys]}


def verifies(token, jwk_set):
    """Whether one of the public keys (ES256, Ed25519) of that set made the token."""
    text, _, signature = token.rpartition(".")
    kid, raw = header_of(token).get("kid"), unb64(signature)
    for jwk in jwk_set["keys"]:
        if jwk.get("kid") != kid:
            continue
        try:
            if jwk["kty"] == "OKP":
                ed25519.Ed25519PublicKey.from_public_bytes(unb64(jwk["x"])).verify(raw, text.encode())
            else:
                public = ec.EllipticCurvePublicNumbers(int.from_bytes(unb64(jwk["x"]), "big"),
                                                       int.from_bytes(unb64(jwk["y"]), "big"),
                                                       ec.SECP256R1()).public_key()
                public.verify(utils.encode_dss_signature(int.from_bytes(raw[:32], "big"),
                                                         int.from_bytes(raw[32:], "big")),
                              text.encode(), ec.ECDSA(hashes.SHA256()))
            return True
        except Exception:  # noqa: BLE001 - whatever is wrong, it does not verify
            return False
    return False


def malleated(token):
    """The other signature of the same token that ECDSA accepts: s -> n - s."""
    text, _, signature = token.rpartition(".")
    raw = unb64(signature)
    s = P256_ORDER - int.from_bytes(raw[32:], "big")
    return text + "." + b64(raw[:32] + s.to_bytes(32, "big"))


def claims(**more):
    """Claims of a good token for the tests' routes; None takes one out."""
    now = int(time.time())
    made = {"iss": "https://id.example", "aud": "shop", "sub": "alice", "iat": now, "exp": now + 600, **more}
    return {k: v for k, v in made.items() if v is not None}
