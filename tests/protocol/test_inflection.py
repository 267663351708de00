"""What people expect to find when they type another form of a word, and what they do not."""

from __future__ import annotations

import pytest

from homeserver.protocol.search_query import match, parse_query
from homeserver.protocol.segmentation import terms_of, tokens_of, write_words

#: A text, and what it is found by.
FOUND = [
    ("I was running to the meeting", "run"),
    ("I was running", "runs"),
    ("He stopped here", "stop"),
    ("stopping", "stopped"),
    ("the boxes", "box"),
    ("Don't do it", "don't"),
    ("Don’t do it", "don't"),
    ("making cakes", "make"),
    ("I tried", "try"),
    ("planning", "plan"),
    ("discussed the budgets", "discuss"),
    ("needed", "need"),
    ("bedding", "bed"),
    ("l’eau est froide", "eau"),
    ("de l'eau", "l'eau"),
    ("beaucoup d'eau", "l'eau"),
    ("les élèves", "élève"),
    ("die Häuser", "Haus"),
    ("das Haus", "Häuser"),
    ("Straßen", "Strasse"),
    ("in München", "Muenchen"),
    ("in Muenchen", "München"),
    ("die Verträge", "Vertrag"),
    ("Besprechungen", "Besprechung"),
    ("die Kunden", "Kunde"),
    ("Fuss", "Fuß"),
    ("книги на столе", "книга"),
    ("в Москве", "Москва"),
    ("встречи", "встреча"),
    ("Она читала книгу", "книги"),
    ("красивая", "красивый"),
    ("ёлка", "елки"),
    ("والكتاب هنا", "كتاب"),
    ("بالمدرسة", "مدرسة"),
    ("كتابي", "كتاب"),
    ("للكتاب", "الكتاب"),
    ("كُتُب", "كتب"),
    ("المعلمون", "معلم"),
    ("إسلام", "اسلام"),
    ("أحمد", "احمد"),
    ("हिंदी भाषा", "हिन्दी"),
    ("हिन्दी", "हिंदी"),
    ("किताबें", "किताब"),
    ("किताबों में", "किताब"),
    ("लड़के", "लड़का"),
    ("ज़िंदगी", "जिंदगी"),
    ("चाँद", "चांद"),
    ("hòa bình", "hoà bình"),
    ("hoà bình", "hòa bình"),
    ("thuỷ", "thủy"),
    ("đường", "duong"),
    ("サーバを再起動", "サーバー"),
    ("サーバー", "サーバ"),
    ("昨日寿司を食べました", "食べる"),
    ("本を読んだ", "読む"),
    ("学校に行った", "行く"),
    ("とても大きかった", "大きい"),
    ("東京へ", "京"),
    ("ｻｰﾊﾞｰ", "サーバー"),
    ("친구를 만났다", "친구"),
    ("친구가 왔다", "친구를"),
    ("학교에 갔다", "학교에서"),
    ("회의는 내일", "회의"),
    ("會議在上海", "会议"),
    ("会议", "會議"),
    ("我們", "我们"),
    ("电脑", "電腦"),
    ("北京，上海", "北京 上海"),
    ("ไปกินข้าว", "กินข้าว"),
    ("ข้าวผัด", "ข้าว"),
    ("น้ำ", "น้ำ"),
    ("กำ", "กํา"),
    ("הספר", "ספר"),
    ("בספר", "ספר"),
    ("ספרים", "ספר"),
    ("İZMİR", "izmir"),
    ("Iğdır", "ığdır"),
    ("DİYARBAKIR", "diyarbakır"),
    ("foo_bar(baz)", "foo_bar"),
    ("e-mail", "e-mail"),
    ("#room:example.org", "example.org"),
    ("🇩🇪", "🇩🇪"),
    ("❤️", "❤"),
    ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
    ("C3PO", "c3po"),
    ("１２３", "123"),
    ("wiadomość", "wiadomosc"),
    ("reuniones", "reunión"),
    ("ciudades", "ciudad"),
    ("niños", "niño"),
]
#: A text, and what it is not found by, though it looks a little like it.
NOT_FOUND = [
    ("we met to plan", "plane"),
    ("the car", "care"),
    ("universal", "university"),
    ("the news", "new"),
    ("business", "busy"),
    ("number nine", "numb"),
    ("discussion", "discussing"),
    ("string theory", "str"),
    ("bring it", "br"),
    ("sing a song", "s"),
    ("seed", "see"),
    ("red bed", "r"),
    ("journaux", "journal"),
    ("москвичи", "Москва"),
    ("столица", "стол"),
    ("مكتبة", "كتاب"),
    ("काम", "कम"),
    ("行列", "行く"),
    ("e-mail", "email"),
]


@pytest.mark.parametrize(("text", "typed"), FOUND)
def test_a_text_is_found_by_other_forms_of_its_words(text: str, typed: str) -> None:
    query, tokens = parse_query(typed), tokens_of(text)
    assert match(query, write_words(tokens)) is not None
    assert all({*group} & terms_of(tokens) for group in query.terms)


@pytest.mark.parametrize(("text", "typed"), NOT_FOUND)
def test_a_text_is_not_found_by_other_words(text: str, typed: str) -> None:
    assert match(parse_query(typed), write_words(tokens_of(text))) is None


def test_quoted_words_are_found_as_they_are() -> None:
    assert match(parse_query('"meeting"'), write_words(tokens_of("the meetings"))) is None
    assert match(parse_query('"meetings"'), write_words(tokens_of("the meetings"))) is not None
