//! The vocabulary: each word with the space before it is one token of `o200k_base`, and stays one between any others.

#[rustfmt::skip]
const WORDS: [&str; 400] = [
    " able", " here", " sharp", " bring", " lion", " straight", " day", " next", " very", " floor", " play", " again", " honey", " shop",
    " but", " look", " sugar", " door", " nose", " walk", " foot", " power", " always", " hundred", " simple", " cake", " machine",
    " table", " drink", " ocean", " water", " four", " rain", " apple", " island", " size", " carry", " market", " teach", " early",
    " oil", " well", " front", " rest", " back", " just", " small", " cheese", " measure", " there", " edge", " open", " while",
    " gentle", " ring", " because", " kitchen", " so", " clean", " milk", " three", " engine", " over", " wind", " grain", " room",
    " below", " lake", " sound", " cloud", " money", " together", " face", " park", " wish", " group", " sail", " bird", " last",
    " square", " color", " most", " tower", " farm", " path", " word", " hand", " sea", " book", " leaf", " stay", " country", " much",
    " true", " fill", " perhaps", " yellow", " hear", " send", " branch", " lemon", " stop", " cup", " neck", " under", " first",
    " plain", " about", " high", " sheep", " brother", " listen", " strange", " deep", " nice", " village", " flower", " point", " air",
    " horse", " short", " butter", " lost", " summer", " down", " note", " wall", " forest", " present", " and", " ice", " sing", " call",
    " make", " tail", " drive", " of", " way", " free", " reach", " area", " job", " skin", " castle", " matter", " tell", " earth",
    " old", " west", " fruit", " rice", " ball", " keep", " smile", " child", " meat", " thick", " egg", " orange", " white", " give",
    " river", " become", " knee", " soft", " clear", " mind", " through", " enough", " page", " window", " grass", " root", " best",
    " lamp", " south", " coast", " month", " tomorrow", " fall", " part", " with", " grow", " salt", " black", " late", " stand", " come",
    " mother", " town", " fast", " pay", " work", " happy", " season", " both", " learn", " steel", " course", " music", " try", " find",
    " person", " yes", " heart", " seven", " bread", " letter", " store", " dance", " need", " until", " fish", " plan", " above",
    " hill", " ship", " brown", " little", " stream", " desk", " night", " visit", " fly", " pond", " all", " hot", " show", " button",
    " love", " sun", " draw", " nothing", " warm", " forget", " pretty", " animal", " idea", " sister", " candle", " man", " take",
    " dry", " off", " wear", " fresh", " read", " around", " join", " sky", " cat", " may", " ten", " east", " once", " wheel", " full",
    " rich", " basket", " key", " smoke", " circle", " meet", " thin", " eight", " order", " wide", " glass", " road", " before",
    " knife", " some", " climb", " minute", " time", " evening", " paint", " wine", " great", " rose", " better", " land", " space",
    " coat", " moon", " top", " family", " party", " woman", " hair", " same", " blue", " laugh", " star", " common", " mountain",
    " train", " father", " pen", " world", " hard", " seat", " bottle", " leave", " step", " cousin", " name", " turn", " fine",
    " picture", " yesterday", " heavy", " shade", " bridge", " light", " storm", " dark", " never", " use", " five", " plant", " across",
    " hold", " shirt", " build", " live", " street", " dinner", " nine", " voice", " follow", " poor", " along", " hour", " side", " buy",
    " low", " sweet", " dream", " now", " wash", " form", " quick", " answer", " inside", " sit", " card", " many", " talk", " during",
    " office", " weather", " friend", " ready", " autumn", " journey", " sleep", " chair", " meadow", " that", " easy", " one", " when",
    " garden", " ride", " bear", " kind", " smooth", " city", " metal", " thing", " empty", " other", " wife", " gold", " rock", " begin",
    " know", " song", " clock", " mirror", " tiny", " every", " pair", " wing", " green", " round", " between", " language", " speak",
    " coffee", " more", " touch", " famous", " pass", " wonder", " half", " sand", " boat", " law",
];

/// So many words of the answer with this number, from the word at `start` on.
pub(crate) fn text(answer: u64, start: u64, count: u64) -> String {
    let first = usize::try_from((answer * 37 + start) % WORDS.len() as u64).unwrap_or_default();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    WORDS.iter().cycle().skip(first).take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::count_text;

    #[test]
    fn each_word_is_one_token() {
        for word in WORDS {
            assert_eq!(count_text(word), 1, "{word:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn words_in_a_row_are_as_many_tokens(answer in 0_u64..200, start in 0_u64..20_000, count in 0_u64..600) {
            proptest::prop_assert_eq!(count_text(&text(answer, start, count)), count);
        }
    }

    #[test]
    fn an_answer_in_pieces_is_the_same_answer() {
        let pieces: String = (0..1000).map(|start| text(3, start, 1)).collect();
        assert_eq!(pieces, text(3, 0, 1000));
    }
}
