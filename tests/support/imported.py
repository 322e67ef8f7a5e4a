"""Password hashes as other systems write them, all of one password.

Made with Django 5.2.19 (`django.contrib.auth.hashers`), passlib 1.7.4 and argon2-cffi
25.1.0, with the least parameters that show each form.
"""

from __future__ import annotations

#: The password of all of them; not ASCII, so that its encoding shows.
IMPORTED_PASSWORD = "correct h\u00f6rse battery"
_BCRYPT = "$2b$04$yEIvsMMz/2EyMDbg4lL/gOw/X9GGxkMOlK7umn4VrNEiSAmyFCj1a"
_ARGON2ID = (
    "$argon2id$v=19$m=64,t=2,p=8$c2FsdHNhbHRzYWx0"
    "$GjbEWHOvpYZad5LAHEVXjE4m/EREwm6NfoYy/xoZA78"
)
#: One of each family, by its name.
HASHES = {
    "bcrypt": _BCRYPT,
    "pbkdf2_sha256": "pbkdf2_sha256$1000$saltsaltsalt"
    "$4FS7FMI4/Bae/jZesf3bEgVhdwisagkoul5/Ztc1FPo=",
    "argon2id": _ARGON2ID,
    "scrypt": "scrypt$16$saltsaltsalt$8$5$f3ZuEA4m0l+xKDhmtrGIu/jg1dqJ2SSA0D2vkm"
    "JcQS3DQG1aG8zVM3NRAiREJcwcKXtYHEWWlkzVBRstEa+13A==",
}
#: Other spellings of the same, by the systems that write them.
SPELLINGS = {
    "django bcrypt": f"bcrypt${_BCRYPT}",
    "spring bcrypt": "{bcrypt}" + _BCRYPT.replace("$2b$", "$2a$"),
    "php bcrypt": _BCRYPT.replace("$2b$", "$2y$"),
    "django argon2": f"argon2{_ARGON2ID}",
    "spring argon2": "{argon2@SpringSecurity_v5_8}" + _ARGON2ID,
    "old spring argon2": "{argon2}" + _ARGON2ID,
    "argon2-cffi": "$argon2id$v=19$m=64,t=1,p=2$W/RU7l+ZZuQA+ZbLoyr46g"
    "$Bajb1yLwfvOEpnBqvlkYrW7yfmlNz60KD55lq1QDP+Y",
    "passlib scrypt": "$scrypt$ln=4,r=8,p=1$N0ZobS0lJOScc+6d0xpD6A"
    "$Kg/VGa2l6st+z6GEqZNPz2O9U68VZv9AHJBjn+WJytc",
}
