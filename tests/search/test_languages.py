"""What is found in texts of many languages, and what is not, alike on both engines."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.search.library import Library

ALICE = "@alice:here.example"

TEXTS = {
    "en": "The meetings about Anna's budget are on Monday: https://example.org/plan_b?x=1, @bob:example.org",
    "en2": "A category of parties that nobody celebrates, in room 3.14",
    "de": "Die Straße nach München ist schön, sagt Jürgen",
    "fr": "L'été dernier, à l'école, le garçon mangeait des crêpes",
    "es": "El niño comió piñones mañana por la mañana",
    "vi": "Chúng tôi bán nhà ở Đà Nẵng vào thứ hai",
    "vi2": "Bạn tôi đến từ Hà Nội",
    "vi3": "ban toi o Da Nang",
    "tr": "İstanbul'da IŞIK ılık bir gün",
    "pl": "Łódź leży w Polsce, żółć",
    "ru": "Мой ёжик живёт в Москве, а йод — в аптеке",
    "uk": "Їжак з'їв яблуко в Києві",
    "el": "Η Αθήνα είναι η πρωτεύουσα ΟΔΟΣ",
    "ja": "東京大学の入学試験は来週です。データベースを作ります",
    "ja2": "東京は大きい。大学はここです",
    "ja3": "ﾃﾞｰﾀを送る、ABCで食べる",
    "zh": "我们明天在北京开会讨论预算",
    "zh2": "会议在上海举行，2024年",
    "ko": "학교에서 친구를 만났어요. 서울은 넓다",
    "th": "วันนี้มีประชุมตอนบ่ายที่กรุงเทพ",
    "th2": "เก่าแก่ ไม่ใหม่ ภาษาไทยง่ายนิดเดียว",
    "lo": "ຂ້ອຍຢູ່ນະຄອນຫຼວງວຽງຈັນ",
    "km": "ខ្ញុំរស់នៅភ្នំពេញ",
    "my": "မြန်မာနိုင်ငံသည်လှပသည်",
    "ar": "قرأتُ الكِتَابَ في المدرسة أمس",
    "fa": "من کتاب می‌خوانم",
    "he": "שָׁלוֹם לכולם, הספר על השולחן",
    "hi": "मुझे हिन्दी में किताब चाहिए, काम बहुत है",
    "hi2": "समय कम है",
    "ta": "நான் தமிழ் படிக்கிறேன்",
    "bn": "আমি বাংলায় গান গাই",
    "mix": "明日のmeetingは10時 🎉👍🏽 ok",
}

#: What is typed, and the texts it finds.
FOUND = [
    # English: whole words, singular and plural, in any case and order; what is joined stays so.
    ("meetings", "en mix"),
    ("MEETING", "en mix"),
    ("monday meeting", "en"),
    ("anna", "en"),
    ("anna's", "en"),
    ("anna's monday", "en"),
    ("party", "en2"),
    ("cat", ""),
    ("art", ""),
    ("celebrate", "en2"),
    ("example.org", "en"),
    ("https://example.org/plan_b", "en"),
    ("https://example.org/plan_c", ""),
    ("@bob:example.org", "en"),
    ("3.14", "en2"),
    ('"budget are"', "en"),
    ('"are budget"', ""),
    ("budget nobody", ""),
    # Accents are optional where none are typed.
    ("STRASSE", "de"),
    ("munchen", "de"),
    ("MÜNCHEN", "de"),
    ("schon", "de"),
    ("été", "fr"),
    ("ete", "fr"),
    ("école", "fr"),
    ("garcon", "fr"),
    ("crêpes", "fr"),
    ("nino", "es"),
    ("mañana", "es"),
    # Vietnamese: typed without marks it finds all, with marks only these or none.
    ("bán", "vi vi3"),
    ("bạn", "vi2 vi3"),
    ("ban", "vi vi2 vi3"),
    ("đà nẵng", "vi vi3"),
    ("da nang", "vi vi3"),
    ("Hà Nội", "vi2"),
    ("istanbul", "tr"),
    ("İSTANBUL", "tr"),
    ("ışık", "tr"),
    ("ilik", "tr"),
    ("lodz", "pl"),
    ("Łódź", "pl"),
    ("zolc", "pl"),
    ("ежик", "ru"),
    ("МОСКВЕ", "ru"),
    ("мои", ""),
    ("йод", "ru"),
    ("їжак", "uk"),
    ("іжак", ""),
    ("αθηνα", "el"),
    ("οδος", "el"),
    # Chinese and Japanese: anywhere, but in one piece.
    ("東京大学", "ja"),
    ("東京", "ja ja2"),
    ("大学", "ja ja2"),
    ("東京 大学", "ja ja2"),
    ("入学試験", "ja"),
    ("京大学生", ""),
    ("東", "ja ja2"),
    ("データ", "ja ja3"),
    ("ﾃﾞｰﾀ", "ja ja3"),
    ("でーた", ""),
    ("タ", "ja ja3"),
    ("ダ", ""),
    ("食べる", "ja3"),
    ("ＡＢＣ", "ja3"),
    ("北京", "zh"),
    ("京开", "zh"),
    ("开会", "zh"),
    ("会议", "zh2"),
    ("会", "zh zh2"),
    ("海北", ""),
    ("2024", "zh2"),
    ("2024年", "zh2"),
    ("北京,上海", ""),
    # Korean: with its particles, and without.
    ("학교", "ko"),
    ("학교에서", "ko"),
    ("친구", "ko"),
    ("서울", "ko"),
    ("교서", ""),
    ("집", ""),
    # Thai and its neighbours: whole syllables with their marks.
    ("ประชุม", "th"),
    ("กรุงเทพ", "th"),
    ("บ่าย", "th"),
    ("บาย", ""),
    ("ใหม่", "th2"),
    ("ใหม", ""),
    ("เก่า", "th2"),
    ("กา", ""),
    ("ภาษาไทย", "th2"),
    ("ງຈັນ", "lo"),
    ("ភ្នំពេញ", "km"),
    ("ពេញ", "km"),
    ("မြန်မာ", "my"),
    # Arabic, Persian and Hebrew: vowel signs and the article are optional.
    ("كتاب", "ar fa"),
    ("الكتاب", "ar fa"),
    ("مدرسة", "ar"),
    ("امس", "ar"),
    ("کتاب", "ar fa"),
    ("میخوانم", "fa"),
    ("שלום", "he"),
    ("שָׁלוֹם", "he"),
    ("ספרים", "he"),
    # Indic scripts: vowel signs make the word.
    ("किताब", "hi"),
    ("काम", "hi"),
    ("कम", "hi2"),
    ("हिन्दी", "hi"),
    ("हिन्द", ""),
    ("தமிழ்", "ta"),
    ("தமிழ", ""),
    ("বাংলায়", "bn"),
    ("গান", "bn"),
    # Mixed, and symbols.
    ("明日", "mix"),
    ("meetingは", "mix"),
    ("10時", "mix"),
    ("🎉", "mix"),
    ("👍", "mix"),
    ("👎", ""),
    ("ok 🎉", "mix"),
    # Nothing is taken for the language of a search engine.
    ("", ""),
    ("*", ""),
    ("-budget", "en"),
    ("budget OR nobody", ""),
    ('"', ""),
    ("' OR 1=1 --", ""),
    ("budget & !nobody:*", ""),
    ("meet*", "en mix"),
    ("terms:budget", ""),
    ("NEAR(budget anna)", ""),
]


async def test_words_of_many_languages_are_found_and_others_are_not(library: Library) -> None:
    room = await library.room(ALICE)
    names = {(await room.send(ALICE, text)).id: name for name, text in TEXTS.items()}

    async def found(query: str) -> set[str]:
        reply = await library.search(ALICE, query, filter={"limit": 100})
        assert reply["count"] == len(reply["results"])
        return {names[one["result"]["event_id"]] for one in reply["results"]}

    wrong = {
        query: (expected, " ".join(sorted(got)))
        for query, expected in FOUND
        if (got := await found(query)) != set(expected.split())
    }
    assert wrong == {}


async def test_every_text_is_found_by_any_two_of_its_words_that_follow_each_other(library: Library) -> None:
    room = await library.room(ALICE)
    ids = {name: (await room.send(ALICE, text)).id for name, text in TEXTS.items()}
    for name, text in TEXTS.items():
        for pair in pairwise(text.split()):
            found = await library.search(ALICE, " ".join(pair).replace('"', ""), filter={"limit": 100})
            assert ids[name] in [one["result"]["event_id"] for one in found["results"]], (name, pair)


@pytest.mark.parametrize(
    ("query", "best"),
    [("京都", "京都へ行く"), ("meeting", "the meeting"), ("bán", "bán nhà"), ("red car", "a red car")],
)
async def test_what_fits_best_comes_first(library: Library, query: str, best: str) -> None:
    room = await library.room(ALICE)
    for text in (best, "東京都へ行く", "the meetings", "ban nha", "a car, and some red"):
        await room.send(ALICE, text)
    found = await library.search(ALICE, query, order_by="rank")
    ranks = [one["rank"] for one in found["results"]]
    assert found["results"][0]["result"]["content"]["body"] == best
    assert len(ranks) == 2
    assert ranks[0] > ranks[1]
